"""File formats of engines: a traced network written as ONNX, PT2, ExecuTorch, OpenVINO or TorchScript, and run."""
