"""Servers of libraries: started, watched and ended by us, or attached; behind the same contract as every session."""

from evalkit.servers.engine import ServableEngine as ServableEngine
from evalkit.servers.engine import flags as flags
from evalkit.servers.process import ServerCommand as ServerCommand
from evalkit.servers.process import ServerProcess as ServerProcess
from evalkit.servers.session import ServedSession as ServedSession
