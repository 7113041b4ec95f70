"""The page of a campaign: how errors fell, what was chosen, and whether that was right."""

from labelwise.campaign.page.document import gather_campaign

__all__ = ["gather_campaign"]
