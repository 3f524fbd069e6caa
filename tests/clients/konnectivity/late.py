"""Data that arrives when its stream has ended and is forgotten, as when many uploads end at once. Prints JSON.

Each stream's dial is refused; its data comes when a hundred others have ended.
"""

import json
import socket
import sys

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import DataFrame

from proxy import *

path, target = sys.argv[1:]
STREAMS, LATE = 1500, 100
FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/ProxyService/Proxy"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
]
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.settimeout(PATIENCE)
client = h2.connection.H2Connection(h2.config.H2Configuration())
client.initiate_connection()
message = packet(DIAL_REQ, "tcp", target, 5)
message = b"\0" + len(message).to_bytes(4, "big") + message


def refused():
    """One stream to its end; its number."""
    stream = client.get_next_available_stream_id()
    client.send_headers(stream, FIELDS)
    client.send_data(stream, message)
    while True:
        connection.sendall(client.data_to_send())
        for event in client.receive_data(connection.recv(65536)):
            match event:
                case h2.events.DataReceived():
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.ConnectionTerminated():
                    raise SystemExit(f"the connection ended: {event}")
                case h2.events.StreamEnded(stream_id=at) if at == stream:
                    return stream


ended = []
for _ in range(STREAMS):
    ended.append(refused())
    if len(ended) > LATE:
        frame = DataFrame(ended[-LATE])
        frame.data = b"late" * 1000
        connection.sendall(frame.serialize())
print(json.dumps({"refused": len(ended)}))
