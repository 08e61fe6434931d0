"""BPG (or JPEG) + LDPC + QAM + SIC, the separation-based baselines."""

from baselines.bpg_ldpc_qam_sic.scheme import BpgLdpcQamSic, JpegLdpcQam

__all__ = ["BpgLdpcQamSic", "JpegLdpcQam"]
