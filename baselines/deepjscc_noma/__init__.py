"""DeepJSCC-NOMA (Yilmaz, Karamanli, Gündüz, ICC 2023): residual networks that superpose, one decoder for all users."""

from baselines.deepjscc_noma.scheme import DeepJsccNoma

__all__ = ["DeepJsccNoma"]
