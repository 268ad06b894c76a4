"""SSD-2: the diffusion language model, its algorithm and its wire format, shared by both trust domains."""
