"""The engine of a core whose model another server computes: vLLM, SGLang or llama.cpp's server, over HTTP."""
