"""NGF and MU-NGF, the Swin transceivers of the GSC paper without their refinement."""
