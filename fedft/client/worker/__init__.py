"""The part of a client that holds the model and the data and answers instructions."""
