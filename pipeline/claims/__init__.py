"""Claims and their verdicts: rules from configs/claims.yaml, effects from quantities, revisions on record."""

from pipeline.claims.ledger import VERDICTS, Check, Claim, Rules, chance, judge, load_rules, trials_of, verdict_of

__all__ = ["VERDICTS", "Check", "Claim", "Rules", "chance", "judge", "load_rules", "trials_of", "verdict_of"]
