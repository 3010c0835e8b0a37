"""The Flower ``ClientApp``: every message goes to the worker that this process keeps.

Neither torch nor transformers is imported here: Flower imports this module in places that only look.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say who this client is and what it holds."""
    return _answer(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on this client's data."""
    return _answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate on this client's held-out data."""
    return _answer(message, context)


def _answer(message: Message, context: Context) -> Message:
    from fedft.client.worker.answer import answer

    return answer(message, context)
