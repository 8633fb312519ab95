"""Plugins are found by entry point; a broken one is reported and stops none of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit import engines
from evalkit.cache import cache_dir
from evalkit.errors import ConfigError, PluginError, UnknownNameError
from evalkit.plugins import PluginManager, get_plugins, load_engine_class
from evalkit.runs.plan import load_task
from evalkit.specs import load_object
from evalkit.testing.fake import Fake

if TYPE_CHECKING:
    from conftest import Site

ENGINE = """
from evalkit import EngineSpec, hookimpl

@hookimpl
def register_engines(register):
    register(EngineSpec("{name}", "an engine", load="{load}"))
"""
TASK = """
from evalkit import TaskSpec, hookimpl

@hookimpl
def register_tasks(register):
    register(TaskSpec("{name}", "a task", load="nowhere:TASK"))
"""
FAKE = "evalkit.testing.fake:Fake"


def _plugin(name: str) -> Any:
    return next(plugin for plugin in get_plugins().plugins if plugin.name == name)


# ── what loads ──────────────────────────────────────────────────────────────────────────────────────────────
def test_a_plugin_is_found_by_its_entry_point(site: Site) -> None:
    """What an installed distribution registers is there by name, with where it comes from."""
    site.plugin("good", ENGINE.format(name="mine", load=FAKE))
    plugin = _plugin("good")
    assert (plugin.distribution, plugin.version, plugin.module) == ("dist-good", "1.5", "plugin_good")
    assert (plugin.error, plugin.hooks) == (None, ("register_engines",))
    assert get_plugins().engine("mine").load == FAKE
    assert get_plugins().engines.owner("mine") == "good"
    assert load_engine_class("mine")[0] is Fake


def test_registering_imports_no_engine(site: Site) -> None:
    """The code behind a spec is imported when it is used, not when it is listed."""
    site.module("heavy_backend", "from evalkit.testing.fake import Fake as Heavy\n")
    site.plugin("lazy", ENGINE.format(name="lazy", load="heavy_backend:Heavy"))
    assert [spec.name for spec in get_plugins().engines] == ["lazy"]
    assert "heavy_backend" not in sys.modules
    assert load_engine_class("lazy")[0] is Fake
    assert "heavy_backend" in sys.modules


def test_importing_evalkit_imports_nothing_of_it() -> None:
    """`import evalkit` loads neither plugins nor any module but itself; its names load on use."""
    code = (
        "import sys, evalkit; print([m for m in sys.modules if m.split('.')[0] in ('evalkit', 'pluggy', 'pydantic')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['evalkit']"


def test_the_command_line_starts_without_checking_runs() -> None:
    """What reads a run's fields is slow to import, and most commands read none."""
    code = "import sys, evalkit.cli.main; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_engine_classes_are_attributes(site: Site) -> None:
    """`evalkit.engines.Class` is the class of an installed engine; a wrong name names the nearest."""
    site.plugin("good", ENGINE.format(name="mine", load=FAKE))
    assert engines.Fake is Fake
    assert dir(engines) == ["Fake"]
    with pytest.raises(AttributeError, match=r"Did you mean 'Fake'"):
        _ = engines.Fakes


def test_an_engine_in_development_needs_no_plugin(site: Site) -> None:
    """`module:Class` is an engine, installed or not."""
    cls, spec = load_engine_class(FAKE)
    assert (cls, spec.name) == (Fake, FAKE)


# ── what does not load ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
        ("from evalkit import hookimpl\n@hookimpl\ndef register_engines(wrong): ...\n", "PluginValidationError"),
    ],
)
def test_a_broken_plugin_is_reported_and_others_load(site: Site, source: str, cause: str) -> None:
    """The cause is kept on one line; plugins before and after it work."""
    site.plugin("a-good", ENGINE.format(name="first", load=FAKE))
    site.plugin("broken", source)
    site.plugin("z-good", TASK.format(name="last"))
    error = _plugin("broken").error
    assert cause in error
    assert "\n" not in error
    assert get_plugins().broken == [_plugin("broken")]
    assert get_plugins().engine("first").name == "first"
    assert get_plugins().task("last").name == "last"


def test_a_family_that_cannot_name_its_tasks_ends_no_list(site: Site) -> None:
    """It is reported like a broken plugin; one of its own names still says why."""
    site.plugin(
        "family",
        "from evalkit import TaskFamily, hookimpl\nfrom evalkit.errors import ConfigError\n"
        "@hookimpl\ndef register_tasks(register): register(TaskFamily('many:', 'plugin_family:names'))\n"
        "def names(): raise ConfigError('the cache folder cannot be made')\n",
    )
    site.plugin("good", TASK.format(name="last"))
    assert "last" in [spec.name for spec in get_plugins().tasks]
    assert get_plugins().broken == [_plugin("family")]
    assert _plugin("family").error == "ConfigError: the cache folder cannot be made"
    with pytest.raises(ConfigError, match=r"cannot be made"):
        get_plugins().task("many:one")


def test_a_cache_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the folder and the variable that sets another one."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("EVALKIT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match=r"cache cannot be made .*Set EVALKIT_CACHE_DIR"):
        cache_dir()


def test_a_missing_name_mentions_broken_plugins(site: Site) -> None:
    """A name that a broken plugin may have provided says which plugins are broken."""
    site.plugin("broken", "import no_such_library\n")
    for find in (get_plugins().engine, get_plugins().task):
        with pytest.raises(UnknownNameError, match=r"because broken: broken \(see: evalkit plugins\)"):
            find("transformers")


def test_a_plugin_that_fails_half_way_leaves_nothing(site: Site) -> None:
    """What was registered before the failure is taken back, hooks included; equal names of others stay."""
    site.plugin("good", TASK.format(name="shared"))
    half = "from evalkit import EngineSpec\n" + TASK.format(name="shared") + "    raise ValueError('half way')\n"
    hook = "\n@hookimpl\ndef open_dataset(dataset, split, data_dir):\n    raise AssertionError('called')\n"
    engine = f"\n@hookimpl\ndef register_engines(register):\n    register(EngineSpec('gone', '', load='{FAKE}'))\n"
    site.plugin("half", half + hook + engine)
    manager = get_plugins()
    assert _plugin("half").error == "ValueError: half way"
    assert list(manager.engines) == []
    assert manager.tasks.owner("shared") == "good"
    assert manager.task("shared").name == "shared"
    assert manager.conflicts() == []
    assert "half" not in dict(manager.pm.list_name_plugin())
    assert all(impl.plugin_name != "half" for impl in manager.hook.open_dataset.get_hookimpls())


@pytest.mark.parametrize(("wrong", "right"), [("register_task", "register_tasks"), ("run_finish", "run_finished")])
def test_a_misspelt_hook_is_reported_with_the_nearest(site: Site, wrong: str, right: str) -> None:
    """A hook that nobody calls is an error that names the hook that was meant."""
    site.plugin("typo", f"from evalkit import hookimpl\n@hookimpl\ndef {wrong}(): ...\n")
    site.plugin("z-typo", f"from evalkit import hookimpl\n@hookimpl\ndef {wrong}(): ...\n")
    for name in ("typo", "z-typo"):
        assert f"there is no hook {wrong!r}. Did you mean {right!r}" in _plugin(name).error


def test_two_plugins_in_one_module_do_not_break_each_other(site: Site) -> None:
    """A second entry point to a module already loaded is reported; the first plugin keeps its hooks."""
    hook = "\n@hookimpl\ndef open_dataset(dataset, split, data_dir):\n    return [{'from': 'first'}]\n"
    site.plugin("first", TASK.format(name="mine") + hook, module="twice")
    site.plugin("second", TASK.format(name="mine") + hook, module="twice")
    manager = get_plugins()
    assert _plugin("first").error is None
    assert "already registered" in _plugin("second").error
    assert manager.tasks.owner("mine") == "first"
    assert manager.hook.open_dataset(dataset=None, split="test", data_dir=None) == [{"from": "first"}]


# ── names claimed twice ─────────────────────────────────────────────────────────────────────────────────────
def test_a_name_of_two_plugins_is_refused_when_used(site: Site) -> None:
    """Nobody's engine is silently replaced: the name is refused and both plugins named, other names work."""
    site.plugin("one", ENGINE.format(name="fast", load=FAKE) + TASK.format(name="quiz"))
    site.plugin("two", ENGINE.format(name="fast", load="elsewhere:Other"))
    manager = get_plugins()
    sentence = "engine 'fast' is claimed by plugins one and two. Uninstall one of them, or choose with EVALKIT_PLUGINS"
    with pytest.raises(PluginError) as caught:
        manager.engine("fast")
    assert str(caught.value) == sentence
    assert manager.conflicts() == [sentence]
    assert list(manager.engines) == []
    assert manager.task("quiz").name == "quiz"
    assert manager.broken == []


def test_choosing_plugins_ends_a_conflict(site: Site) -> None:
    """EVALKIT_PLUGINS with one of the two makes the name usable."""
    site.plugin("one", ENGINE.format(name="fast", load=FAKE))
    site.plugin("two", ENGINE.format(name="fast", load="elsewhere:Other"))
    site.limit_to("two")
    assert get_plugins().engine("fast").load == "elsewhere:Other"
    assert [plugin.name for plugin in get_plugins().plugins] == ["two"]


def test_two_distributions_with_one_plugin_name_load_neither(site: Site) -> None:
    """Which of two equally named plugins loads must not be chance: none does, and both are named."""
    site.plugin("same", ENGINE.format(name="mine", load=FAKE), module="same_one", distribution="dist-one")
    site.plugin("same", ENGINE.format(name="mine", load=FAKE), module="same_two", distribution="dist-two")
    plugin = _plugin("same")
    assert plugin.error == "plugin name 'same' is claimed by dist-one and dist-two. Uninstall one of them"
    assert plugin.distribution == "dist-one, dist-two"
    assert list(get_plugins().engines) == []


# ── which plugins load ──────────────────────────────────────────────────────────────────────────────────────
def test_evalkit_plugins_limits_what_loads(site: Site) -> None:
    """Only the listed plugins load; spaces and empty words do not matter, an empty list loads none."""
    site.plugin("one", ENGINE.format(name="first", load=FAKE))
    site.plugin("two", "raise RuntimeError('must not be imported')\n")
    site.limit_to(" one ", "")
    assert [plugin.name for plugin in get_plugins().plugins] == ["one"]
    site.limit_to()
    assert get_plugins().plugins == []


def test_evalkit_plugins_rejects_unknown_names(site: Site) -> None:
    """A plugin that is not installed is an error with the nearest name, not an empty list."""
    site.plugin("transformer-engine", ENGINE.format(name="first", load=FAKE))
    site.limit_to("transfomer-engine")
    with pytest.raises(ConfigError, match=r"which is not installed. Did you mean 'transformer-engine'"):
        get_plugins()


def test_without_a_limit_every_installed_plugin_loads(site: Site) -> None:
    """The default is what is installed."""
    site.plugin("one", ENGINE.format(name="first", load=FAKE))
    assert "one" in [plugin.name for plugin in PluginManager(None).plugins]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("helaswag", "unknown task 'helaswag'. Did you mean 'hellaswag'? See: evalkit list-tasks"),
        ("zzz", "unknown task 'zzz'. Known: arc_easy, hellaswag. See: evalkit list-tasks"),
    ],
)
def test_an_unknown_name_gets_near_matches(site: Site, name: str, expected: str) -> None:
    """A misspelt name gets the nearest ones, or all where there are few, and the command that lists them."""
    for task in ("hellaswag", "arc_easy"):
        site.plugin(task, TASK.format(name=task))
    with pytest.raises(UnknownNameError) as caught:
        get_plugins().task(name)
    assert str(caught.value) == expected


def test_an_unknown_metric_names_no_command_that_does_not_exist(site: Site) -> None:
    """There is no `evalkit list-metrics`."""
    with pytest.raises(UnknownNameError, match=r"Did you mean 'acc_norm'") as caught:
        get_plugins().metrics.get("acc_nrm")
    assert "list-" not in str(caught.value)


@pytest.mark.parametrize(
    "reference", ["no_such_module:X", "evalkit.tasks:NoSuchTask", "evalkit.tasks", ":X", ".tasks:X"]
)
def test_a_reference_that_leads_nowhere_is_a_plugin_error(reference: str) -> None:
    """Whatever is wrong with "module:attribute", the message has the reference and the next step."""
    with pytest.raises(PluginError, match=r"cannot be loaded .*Reinstall") as caught:
        load_object(reference)
    assert repr(reference) in str(caught.value)


def test_a_task_must_be_a_task(site: Site) -> None:
    """A spec that leads to something else is the plugin's mistake."""
    site.plugin("odd", TASK.format(name="odd").replace("nowhere:TASK", "math:pi"))
    with pytest.raises(PluginError, match=r"task 'odd' is a float, not a Task"):
        load_task("odd")
