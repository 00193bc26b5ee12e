"""Services that are started for a piece of work, and what their requests answer."""

import asyncio

from stnet.serve.limits import Limits
from stnet.serve.service import Service


def served(predictor, work, decoders=2, window=0.01, change=lambda service: None, **limits):
    """What the coroutine function `work` of a service returns; the service is closed after it."""

    async def whole():
        service = Service(predictor, Limits(**limits), decoders, window)
        change(service)
        await service.start()
        try:
            return await work(service)
        finally:
            await service.close()

    return asyncio.run(whole())


async def answers(request):
    """All that a request answers."""
    return [answer async for answer in request]


async def result(request):
    """What a request answers at the end."""
    return (await answers(request))[-1]["result"]


def scores(answer):
    """Score by class."""
    return {row["id"]: row["score"] for row in answer["categories"]}
