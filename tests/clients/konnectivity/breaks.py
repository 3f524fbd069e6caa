"""Streams to a target that resets behind its last byte: how much came, and how each ended. Prints JSON."""

import sys
import time

from proxy import DATA, Stream, channel, metadata, tell

address, target, streams, rest = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
opened = [Stream(channel(address), metadata("c1")).dial(target) for _ in range(streams)]
outcome = []
for stream in opened:
    count, said = 0, stream.hear()
    while said is not None and said.kind == DATA:
        count += len(said.data)
        time.sleep(rest)
        said = stream.hear()
    outcome.append([count, said and said.plain()])
tell(outcome)
