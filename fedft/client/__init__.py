"""The client's side: the worker that keeps the model in memory and answers instructions."""
