"""What the hub says in each row of konnectivity's state machine, as JSON."""

import json
import sys

from proxy import *

hub, targets = sys.argv[1], json.loads(sys.argv[2])
cluster = metadata("one")
connection = channel(hub)
answers = {}


def row(name, who=cluster):
    stream = Stream(connection, who)

    def told():
        said, status = stream.rest()
        answers[name] = {"said": said, "status": status}

    return stream, told


def begun(name, target="echo"):
    stream, told = row(name)
    return stream.dial(targets[target]), told


# What has to wait is heard last.
late = []
stream, told = begun("close of one that stays", "stays")
stream.close()
late.append(told)
stream, told = begun("target ends", "ends")
late.append(told)
sender, _ = begun("close of one that sends on", "sends on")
sender.read(100_000)
sender.close()

# 1: the first packet is DIAL_REQ, and there is one.
stream, told = row("data first")
stream.send(DATA, 3, None, b"x")
told()
stream, told = row("close first")
stream.send(CLOSE_REQ, 3)
told()
stream, told = begun("two dials")
stream.ask(targets["echo"])
told()
stream, told = row("two dials at once")
stream.ask(targets["hole"])
stream.ask(targets["hole"])
told()

# 2 and 4: no way there, and no target there.
for name in ("unknown cluster", "two clusters", "refused", "no name", "no port"):
    stream, told = row(name, metadata() if name == "unknown cluster" else cluster)
    stream.ask(targets[name])
    told()
stream, told = row("udp")
stream.ask(targets["echo"], "udp")
told()

# 6: whose data it is.
stream, told = begun("foreign data")
stream.send(DATA, stream.id + 1000, None, b"x")
told()
stream, told = begun("foreign close")
stream.send(CLOSE_REQ, stream.id + 1000)
told()
stream, told = begun("data without an ID")
stream.send(DATA, 0, None, b"lost")
stream.write(b"kept")
assert stream.read(4) == b"kept"
stream.close()
told()

# 7: a close is answered after all data.
stream, told = begun("close")
stream.write(b"a" * 100_000)
stream.close()
said, status = stream.rest()
data = "".join(packet.get("data", "") for packet in said)
answers["close"] = {"bytes": len(data), "said": [said[-1]], "status": status}
# The target's reset.
stream, told = begun("target resets", "resets")
stream.write(b"12345")
told()

# 8: a dial is called off.
stream, told = row("dial called off")
stream.ask(targets["hole"])
stream.send(DIAL_CLS, stream.random + 1)
stream.send(DIAL_CLS, stream.random)
told()
stream, told = row("dial closed")
stream.ask(targets["hole"])
stream.send(CLOSE_REQ, 9)
told()

# 9 and 13: a client's end is the connection's.
stream, told = begun("client ends", "reads to the end")
stream.write(b"abc")
stream.end()
told()

# 11 and 12: what is not known, and DRAIN.
stream, told = row("unknown")
stream.send(99)
stream.send(DRAIN)
stream.send(DIAL_CLS, 5)
stream.dial(targets["echo"])
stream.send(77)
stream.raw(packet(DATA, stream.id, None, b"") + field(15, b"new"))
stream.raw(field(1, DATA) + field(7, field(1, 1)))
stream.write(b"here")
assert stream.read(4) == b"here"
stream.end()
told()

# What is none of it ends its stream only.
bystander = Stream(connection, cluster).dial(targets["echo"])
stream, told = row("malformed")
stream.raw(b"\xff\xff\xff")
told()
stream, told = begun("malformed later")
stream.raw(b"\x22\x7f")
told()
stream = Stream(connection, cluster, compression=grpc.Compression.Gzip)
stream.raw(packet(DIAL_REQ, "tcp", targets["echo"] + "x" * 10_000, 5))
answers["compressed"] = dict(zip(("said", "status"), stream.rest()))
stream, told = begun("too long")
stream.raw(b"x" * (8 * 1024 * 1024 + 1))
told()
for name, path in (("unknown method", "/ProxyService/Other"), ("agents' method", "/AgentService/Connect")):
    call = connection.stream_stream(path)(iter([b""]), metadata=cluster, timeout=PATIENCE)
    answers[name] = {"said": [], "status": call.code().value[0]}
bystander.write(b"still here")
assert bystander.read(10) == b"still here"
for told in late:
    told()
said, status = sender.rest()
data = sum(len(packet.get("data", "")) for packet in said)
answers["close of one that sends on"] = {"bytes": data, "said": [said[-1]], "status": status}
tell(answers)
