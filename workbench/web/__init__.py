"""The web page in which the models answer: their graphs in ONNX, the world as tables, and the page itself."""
