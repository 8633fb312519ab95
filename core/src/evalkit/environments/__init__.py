"""Virtual environments that hold one engine each, made by `evalkit env create` or beforehand."""

from evalkit.environments.environment import Environment as Environment
from evalkit.environments.registry import environments as environments
from evalkit.environments.registry import find_environment as find_environment
