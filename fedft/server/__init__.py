"""The server's side: the round coordinator and what it is made of."""
