"""One dial, with the certificates, the token and the server name of the environment. Prints what came of it as JSON."""

import os
import sys

from proxy import *

hub, target, cluster = sys.argv[1], sys.argv[2], sys.argv[3] or None
options = {}
if "SERVER_NAME" in os.environ:
    options["grpc.ssl_target_name_override"] = os.environ["SERVER_NAME"]
if "AUTHORITY" in os.environ:
    options["grpc.default_authority"] = os.environ["AUTHORITY"]
stream = Stream(channel(hub, **options), metadata(cluster))
stream.ask(target)
said = stream.hear()
if said is None:
    tell({"status": stream.status(), "details": stream.call.details()})
elif said.error:
    tell({"error": said.error, "known": said.random == stream.random})
else:
    stream.id = said.id
    stream.write(b"hello")
    echoed = stream.read(5).decode()
    stream.close()
    tell({"echoed": echoed, "end": stream.rest()})
