"""The marker that plugins put on their hook implementations: `@evalkit.hookimpl`."""

from __future__ import annotations

import pluggy

hookimpl = pluggy.HookimplMarker("evalkit")
