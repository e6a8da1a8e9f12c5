"""The floors: servers that give back what they get, on the libraries that the embedded server stands on.

python -m benchmarks.echo rest|grpc PORT
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop
from aiohttp import web


async def serve_rest(port: int) -> None:
    async def echo(request: web.BaseRequest) -> web.Response:
        return web.Response(body=await request.read(), headers={"Content-Type": "application/json"})

    runner = web.ServerRunner(web.Server(echo, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def serve_grpc(port: int) -> None:
    async def echo(request: bytes, _context: Any) -> bytes:
        return request

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    methods = {"Predict": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo.Echo", methods)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run({"rest": serve_rest, "grpc": serve_grpc}[sys.argv[1]](int(sys.argv[2])))
