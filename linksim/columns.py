"""The columns of every table but those of metrics, which name their own (`linksim.metrics`)."""

COLUMNS = frozenset(
    {
        "scheme", "variant", "kind", "stage", "dataset", "channel", "antennas", "detector", "rho", "users", "snr_db",
        "power", "csi_error_var", "n_images", "n_groups", "n_left_out", "n_blocks", "n_block_errors", "bler",
        "bler_low", "bler_high", "loss_rate", "tx_power", "power_note", "channel_uses", "rho_total", "rho_user",
        "trained_pairs", "trained_note", "stop_reason", "seconds", "seed", "group", "user", "image", "mse", "lost",
        "envelope_of", "refine_steps", "refine_start", "refine_seconds", "refine_images_per_s",
    }
)  # fmt: skip

#: What ends the name of a refined row's difference from the first stage, paired over groups.
VS_FIRST = "_vs_first"

#: What ends the name of a column that says more of another one.
SUFFIXES = ("_ci95", "_note", VS_FIRST)
