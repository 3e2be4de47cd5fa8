"""`bind_port.py PORT [CHOSEN...]`: prints the port when it can be bound on loopback and is none of those chosen before.

Fails when it is taken or no port; 0 prints a free one.
"""

import socket
import sys

asked, chosen = sys.argv[1], sys.argv[2:]
with socket.socket() as probe:
    # As the servers do: a connection of an earlier run that is still closing does not count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(asked)))
    except (OSError, OverflowError, ValueError):
        sys.exit(1)
    port = str(probe.getsockname()[1])
if port in chosen:
    sys.exit(1)
print(port)
