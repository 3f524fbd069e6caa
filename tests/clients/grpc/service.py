"""A gRPC service without a schema: answers with what it is asked, once or once for each of several requests."""

import sys
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/echo.Echo/Once":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        if call.method == "/echo.Echo/Each":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)
        if call.method == "/echo.Echo/Fail":
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is one")
            )
        return None


server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Echo()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
