"""Many dials on one connection: DIALS one after another in WIDTH lanes, with bursts that are cancelled. Prints JSON."""

import asyncio
import sys
from collections import Counter

from proxy import *

hub, target, hole = sys.argv[1], sys.argv[2], sys.argv[3]
DIALS, WIDTH, BURSTS, BURST = 10_000, 100, 5, 300
cluster = metadata("one")
counted = Counter()


async def dial(method, number):
    call = method(metadata=cluster, timeout=60)
    await call.write(packet(DIAL_REQ, "tcp", target, number))
    answer = Said(await call.read())
    if answer.kind != DIAL_RSP or answer.error or answer.random != number:
        counted[f"refused: {answer.error}"] += 1
        return
    text = b"dial %d" % number
    await call.write(packet(DATA, answer.id, None, text))
    echoed = b""
    while len(echoed) < len(text):
        echoed += Said(await call.read()).data
    await call.write(packet(CLOSE_REQ, answer.id))
    closed = Said(await call.read())
    right = echoed == text and closed.kind == CLOSE_RSP and closed.id == answer.id and not closed.error
    counted["right" if right else "wrong"] += 1
    await call.done_writing()
    await call.code()


async def lane(method, numbers):
    for number in numbers:
        await dial(method, number)


async def cancelled(method):
    calls = [method(metadata=cluster, timeout=60) for _ in range(BURST)]
    await asyncio.gather(*(call.write(packet(DIAL_REQ, "tcp", hole, 7)) for call in calls))
    for call in calls:
        call.cancel()
    counted["cancelled"] += len(calls)


async def main():
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_concurrent_streams", 100_000)]
    async with grpc.aio.insecure_channel(hub, options) as channel:
        method = channel.stream_stream("/ProxyService/Proxy")
        lanes = [lane(method, range(1 + at, 1 + DIALS, WIDTH)) for at in range(WIDTH)]

        async def bursts():
            for _ in range(BURSTS):
                await cancelled(method)
                await asyncio.sleep(0.1)

        await asyncio.gather(bursts(), *lanes)
    tell(counted)


asyncio.run(main())
