"""konnectivity's Proxy stream as an independent client speaks it: grpcio for the calls, protobuf's wire format by hand."""

import json
import os
import queue
import random
import socket
import sys
import threading

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc

DIAL_REQ, DIAL_RSP, CLOSE_REQ, CLOSE_RSP, DATA, DIAL_CLS, DRAIN = range(7)
# The number of each kind's payload in Packet.
PAYLOAD = {DIAL_REQ: 2, DIAL_RSP: 3, DATA: 4, CLOSE_REQ: 5, CLOSE_RSP: 6, DIAL_CLS: 7, DRAIN: 8}
PATIENCE = 30


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def field(number, value):
    """One field; what is zero or empty is not written, as proto3 has it."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value if value else b""


def packet(kind, *values):
    """A packet with the payload's fields in their order; None for one that is left out."""
    payload = b"".join(field(at + 1, value) for at, value in enumerate(values) if value is not None)
    head = varint(PAYLOAD[kind] << 3 | 2) + varint(len(payload)) if kind in PAYLOAD else b""
    return field(1, kind) + head + payload


def fields(data):
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 2:
            length = number()
            found[key >> 3] = data[at : at + length]
            at += length
        else:
            found[key >> 3] = number()
    return found


class Said:
    """A packet of the hub."""

    def __init__(self, data):
        outer = fields(data)
        self.kind = outer.get(1, 0)
        inner = fields(outer.get(PAYLOAD.get(self.kind), b""))
        self.error = inner.get(1, b"").decode() if self.kind in (DIAL_RSP, CLOSE_RSP) else ""
        self.id = inner.get(1 if self.kind == DATA else 2, 0)
        self.random = inner.get(3, 0) if self.kind == DIAL_RSP else 0
        self.data = inner.get(3, b"") if self.kind == DATA else b""

    def plain(self):
        names = ["DIAL_REQ", "DIAL_RSP", "CLOSE_REQ", "CLOSE_RSP", "DATA", "DIAL_CLS", "DRAIN"]
        plain = {"kind": names[self.kind], "error": self.error}
        return plain | {"data": self.data.decode("latin-1")} if self.kind == DATA else plain


class Stream:
    """One Proxy stream."""

    def __init__(self, channel, metadata=None, **options):
        # The bytes of messages are made here.
        method = channel.stream_stream("/ProxyService/Proxy")
        self.sending = queue.SimpleQueue()
        self.call = method(iter(self.sending.get, None), metadata=metadata, timeout=PATIENCE, **options)
        self.random = random.getrandbits(62) + 1
        self.id = 0

    def send(self, *parts):
        self.raw(packet(*parts))

    def raw(self, message):
        self.sending.put(message)

    def end(self):
        self.sending.put(None)

    def hear(self):
        """The next packet; None at the call's end."""
        try:
            return Said(next(self.call))
        except (StopIteration, grpc.RpcError):
            return None

    def ask(self, target, protocol="tcp"):
        self.send(DIAL_REQ, protocol, target, self.random)

    def dial(self, target):
        self.ask(target)
        said = self.hear()
        if said is None:
            raise SystemExit(f"the dial ended: {self.status()}")
        if said.error:
            raise SystemExit(f"the dial failed: {said.error}")
        assert said.kind == DIAL_RSP and said.random == self.random and said.id, said.plain()
        self.id = said.id
        return self

    def write(self, data):
        self.send(DATA, self.id, None, data)

    def close(self):
        self.send(CLOSE_REQ, self.id)

    def read(self, count):
        """That many bytes, in whatever packets."""
        data = b""
        while len(data) < count:
            said = self.hear()
            if said is None or said.kind != DATA:
                raise SystemExit(f"{len(data)} of {count} bytes, then {said and said.plain()}, {self.status()}")
            assert said.data, "an empty DATA is the end to Go's client"
            assert len(said.data) <= 64 * 1024, len(said.data)
            data += said.data
        return data

    def rest(self):
        """All packets to the end of the call, and its status."""
        said = []
        while (packet := self.hear()) is not None:
            said.append(packet.plain())
        return said, self.status()

    def status(self):
        return self.call.code().value[0]


def channel(address, **options):
    """A connection of its own for each, where grpcio would share it."""
    options = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": 1 << 20} | options
    options = list(options.items())
    if "CERTIFICATES" not in os.environ:
        return grpc.insecure_channel(address, options)

    def file(name):
        with open(os.path.join(os.environ["CERTIFICATES"], name), "rb") as opened:
            return opened.read()

    key, chain = (None, None) if "TOKEN" in os.environ else (file("tls.key"), file("tls.crt"))
    credentials = grpc.ssl_channel_credentials(file("ca.crt"), key, chain)
    return grpc.secure_channel(address, credentials, options)


def metadata(cluster=None):
    """The token of the environment, as Bearer or with a cluster's name."""
    import base64

    token = os.environ.get("TOKEN")
    if token is None:
        return None
    if cluster is None:
        return (("authorization", f"Bearer {token}"),)
    return (("authorization", "Basic " + base64.b64encode(f"{cluster}:{token}".encode()).decode()),)


def tell(outcome):
    """Prints what came of it, and ends at once: gRPC's threads may hold up the interpreter's own end for ever."""
    print(json.dumps(outcome), flush=True)
    os._exit(0)
