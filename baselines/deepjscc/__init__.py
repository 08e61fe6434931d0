"""DeepJSCC (Bourtsoulatze, Kurka, Gündüz, 2019): convolutions of one user."""

from baselines.deepjscc.scheme import DeepJscc

__all__ = ["DeepJscc"]
