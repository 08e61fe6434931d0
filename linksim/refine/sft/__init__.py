"""SFT, semantic fine-tuning: the second stage of GSC (GSC paper, section III-C; DiffIR's networks)."""
