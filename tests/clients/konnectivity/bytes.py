"""Bytes through a Proxy stream: whose turn it is, how many at once, and who waits for whom. Prints JSON."""

import hashlib
import json
import sys
import time

from proxy import *

hub, targets = sys.argv[1], json.loads(sys.argv[2])
cluster = metadata("one")
connection = channel(hub)
answers = {}

# A target that speaks first is held until the client speaks, or a moment: its first DATA is behind DIAL_RSP, alone or not.
banners = []
for _ in range(50):
    stream = Stream(connection, cluster).dial(targets["banner"])
    banners.append(stream.read(11).decode())
    stream.close()
    stream.rest()
answers["banners"] = sorted(set(banners))

# Messages of 4 MiB, whole, and the same bytes back; then the smallest.
stream = Stream(connection, cluster).dial(targets["echo"])
block = bytes(range(251)) * (4 * 1024 * 1024 // 251 + 1)
block = block[: 4 * 1024 * 1024]
for _ in range(4):
    stream.write(block)
echoed = stream.read(4 * len(block))
answers["echoed"] = echoed == block * 4
stream.write(b"")
stream.write(b"after nothing")
answers["after an empty DATA"] = stream.read(13).decode()
stream.close()
answers["echo ended"] = stream.rest()

# A target that takes nothing holds up its own stream only, however much it is sent.
stalled = [Stream(connection, cluster).dial(targets["stalled"]) for _ in range(8)]
for stream in stalled:
    for _ in range(8):
        stream.write(block)
# A client that takes nothing is not read for.
unread = [Stream(connection, cluster).dial(targets["sends on"]) for _ in range(8)]
other = Stream(connection, cluster).dial(targets["echo"])
for size in (1, 1000, 1_000_000):
    other.write(block[:size])
    assert other.read(size) == block[:size]
other.close()
answers["beside stalled ones"] = other.rest()
print(json.dumps(answers), flush=True)
# The hub's memory is looked at with all of them stalled.
sys.stdin.readline()
for stream in stalled + unread:
    stream.call.cancel()

# gRPC's threads may hold up the interpreter's own end for ever.
os._exit(0)
