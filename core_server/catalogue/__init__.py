"""What is served: model cards, and the messages and errors that the front end and the engine share."""
