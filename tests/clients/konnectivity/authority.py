"""Requests over a Unix socket by an HTTP/2 client that codes its fields as grpc-go does, with a path as authority. Prints JSON.

The fields change from request to request, so that both ends' tables of fields fill up and turn over.
"""

import json
import random
import socket
import sys

import h2.config
import h2.connection
import h2.events

from proxy import *

path, target = sys.argv[1:]
random.seed(7)
letters = "abcdefghijklmnopqrstuvwxyz0123456789%%%%%./-_"
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.settimeout(PATIENCE)
config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
client = h2.connection.H2Connection(config)
client.initiate_connection()
client.max_outbound_frame_size = 16384


def word(longest):
    return "".join(random.choice(letters) for _ in range(random.randrange(1, longest)))


def request(authority):
    """One dial; the error of its answer, or how the stream ended."""
    stream = client.get_next_available_stream_id()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/ProxyService/Proxy"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", f"grpc-go/1.70 {word(40)}"),
        ("te", "trailers"),
        ("x-" + random.choice("abc"), word(300)),
    ]
    client.send_headers(stream, fields, priority_weight=random.choice([None, 17]))
    message = packet(DIAL_REQ, "tcp", target, 5)
    client.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
    data = b""
    while True:
        connection.sendall(client.data_to_send())
        for event in client.receive_data(connection.recv(65536)):
            match event:
                case h2.events.DataReceived(stream_id=at) if at == stream:
                    data += event.data
                    if len(data) >= 5:
                        client.reset_stream(stream, 8)
                        connection.sendall(client.data_to_send())
                        return Said(data[5:]).error or "dialled"
                case h2.events.StreamReset(stream_id=at) if at == stream:
                    return f"reset {event.error_code}"
                case h2.events.ConnectionTerminated():
                    return f"gone {event.error_code}"


# An authority that is right, the path of a socket, and many others of a socket's.
authorities = ["localhost", "%2Fetc%2Fkubernetes%2Fkonnectivity-server.sock", "%", "%2F%2F%2Fa-b_c.sock"]
authorities += ["%2F" + word(60).replace("/", "%2F") for _ in range(300)]
outcomes = {}
for authority in authorities:
    outcome = request(authority)
    outcomes.setdefault(outcome, []).append(authority)
print(json.dumps({outcome: len(of) for outcome, of in outcomes.items()}))
