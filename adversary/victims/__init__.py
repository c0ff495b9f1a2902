"""Models to attack: each a small network, the command that trains it, and its checkpoint as ONNX."""
