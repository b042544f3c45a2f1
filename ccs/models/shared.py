"""From one feature vector per video and stream to class scores: the shared block (sec. 3.3) or separate classifiers."""

from __future__ import annotations

from torch import Tensor, nn


class Shared(nn.Module):
    """The shared block: dropout per stream, then one linear layer to z and one classifier, both tied across streams.

    Raw z feeds the classifier; the ranking losses normalise it themselves.
    """

    def __init__(self, num_features: int, num_classes: int, *, embedding: int, dropout: tuple[float, float]) -> None:
        super().__init__()
        self.dropout_rgb, self.dropout_flow = nn.Dropout(dropout[0]), nn.Dropout(dropout[1])
        self.embed = nn.Linear(num_features, embedding)
        self.classify = nn.Linear(embedding, num_classes)

    def forward(self, rgb_BC: Tensor, flow_BC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits of both streams (B, num_classes) and z of both streams (B, embedding)."""
        z_rgb, z_flow = self.embed(self.dropout_rgb(rgb_BC)), self.embed(self.dropout_flow(flow_BC))
        return self.classify(z_rgb), self.classify(z_flow), z_rgb, z_flow


class Separate(nn.Module):
    """A classifier of its own for each stream, on its pooled features; there is no common z."""

    def __init__(self, num_features: int, num_classes: int, *, dropout: tuple[float, float]) -> None:
        super().__init__()
        self.rgb = nn.Sequential(nn.Dropout(dropout[0]), nn.Linear(num_features, num_classes))
        self.flow = nn.Sequential(nn.Dropout(dropout[1]), nn.Linear(num_features, num_classes))

    def forward(self, rgb_BC: Tensor, flow_BC: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return logits of both streams (B, num_classes), and no z."""
        return self.rgb(rgb_BC), self.flow(flow_BC), None, None
