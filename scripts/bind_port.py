"""`bind_port.py PORT`: prints the port when it can be bound on loopback, fails when it is taken; 0 prints a free one."""

import socket
import sys

with socket.socket() as probe:
    # As the servers do: a connection of an earlier run that is still closing does not count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(sys.argv[1])))
    except (OSError, OverflowError, ValueError):
        sys.exit(1)
    print(probe.getsockname()[1])
