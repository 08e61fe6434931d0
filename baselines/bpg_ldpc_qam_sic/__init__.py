"""BPG + LDPC + QAM + SIC, the separation-based baseline."""

from baselines.bpg_ldpc_qam_sic.scheme import BpgLdpcQamSic

__all__ = ["BpgLdpcQamSic"]
