"""Calls the service by its URL at the hub: HUB-ADDRESS PATH CREDENTIALS-FOLDER HUB-NAME. Prints what it was told as JSON."""

import json
import os
import pathlib
import sys

import grpc

address, path, folder, name = sys.argv[1:]
read = lambda file: (pathlib.Path(folder) / file).read_bytes()
credentials = grpc.ssl_channel_credentials(read("ca.crt"), read("tls.key"), read("tls.crt"))
channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])
large = bytes(range(256)) * 4096
told = {"once": channel.unary_unary(path + "/echo.Echo/Once")(large, timeout=30) == large}
answers = channel.stream_stream(path + "/echo.Echo/Each")((b"%d" % at for at in range(1000)), timeout=30)
told["each"] = [*answers] == [b"%d" % at for at in range(1000)]
try:
    channel.unary_unary(path + "/echo.Echo/Fail")(b"", timeout=30)
except grpc.RpcError as error:
    told["fail"] = [error.code().name, error.details()]
print(json.dumps(told), flush=True)
# gRPC's threads may hold up the interpreter's own end for ever.
os._exit(0)
