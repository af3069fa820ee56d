"""One model measured, alone or against another."""
