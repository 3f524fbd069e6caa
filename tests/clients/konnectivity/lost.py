"""A connection and a dial whose agent goes away. Prints `ready`, and what became of both as JSON."""

import sys

from proxy import *

hub, target, hole = sys.argv[1:]
connection, cluster = channel(hub), metadata("one")
stream = Stream(connection, cluster).dial(target)
dialling = Stream(connection, cluster)
dialling.ask(hole)
print("ready", flush=True)
tell([stream.rest(), dialling.rest()])
