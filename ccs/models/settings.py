"""The network and its losses: the settings of a run that shape what is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from ccs.models.catalogue import BACKBONES
from ccs.settings import Boolean, Field, Ge, Integer, Le, Lt, Number, OneOf, Text, settings

Share = Annotated[Number, Ge(0), Lt(1)]
Margin = Annotated[Number, Ge(0)]

ANY_NUMBER = ("mean", "max")  # the aggregations that take any number of segments
BY_RELATIONS = ("trn", "trn_multiscale")  # those by relations of segments (TRN), which drop out features themselves


@settings
class NetworkSettings:
    """What the network is made of. The four rows of Table 3 are

    baseline: connection none, shared false (and ranking false); CB: shared false (ranking false);
    CS: connection none; All: the defaults.
    """

    backbone: Annotated[Text, OneOf(tuple(BACKBONES))] = "resnet101"
    """one per stream; bninception, i3d, i3d_x0_5, i3d_x0_25 or a classification network of torchvision"""
    weights: Annotated[Text, Field(min_length=1)] = "imagenet"
    """none (random), imagenet, kinetics or charades (published; each backbone has some) or the path of a state dict"""
    weights_flow: Annotated[Text, Field(min_length=1)] = "same"
    """of the flow stream; same (as weights; published ones have a file for flow, if any), one of their names, none or
    the path of a state dict"""
    connection: Literal["none", "nonlocal", "concat", "average"] = "nonlocal"
    """the connection block (Eq. 1-3) or what replaces it (sec. 4.3)"""
    connection_value: Literal["self", "other"] = "self"
    """the features that the attention weighs, the stream's own or the other's"""
    connection_gamma: Annotated[Number, Ge(0)] = 0.0
    """gamma of the block's last batch norm at the beginning; 0: the block begins as the identity, as is usual on
    pretrained backbones; from scratch, streams find each other sooner with more"""
    shared: Boolean = True
    """one embedding and classifier for both streams (sec. 3.3)"""
    aggregation: Literal["mean", "max", "product", "concat", "trn", "trn_multiscale"] = "mean"
    """how segments become a video (Fig. 5a)"""
    embedding: Annotated[Integer, Ge(1), Le(65536)] = 512
    """width of the shared embedding z"""
    dropout: tuple[Share, Share] = (0.8, 0.7)
    """of RGB's and of flow's features, after their aggregation, in TRN before it"""
    partial_bn: Boolean = True
    """freeze all batch norm of a pretrained backbone but its first; without pretrained weights it is off"""
    flow_length: Annotated[Integer, Ge(1)] = 5
    """flow pairs per snippet; 3-D backbones see as many frames, others one"""


@settings
class LossSettings:
    """Weights and margins of the losses, with the paper's values (sec. 4.1) as defaults."""

    ranking: Boolean = True
    """use the ranking losses L1 and L2; needs the shared block"""
    triplet: Literal["hardest", "paired", "all"] = "hardest"
    """which triplets L1 takes"""
    reduction: Literal["mean", "sum"] = "mean"
    """over the terms of L1 and L2"""
    alphas: tuple[Margin, Margin, Margin] = (0.3, 0.3, 0.8)
    """margins across modalities, within and between classes (Eq. 4, 5)"""
    lambdas: tuple[Margin, Margin] = (0.5, 0.5)
    """weights of L1 and L2 beside cross entropy (Eq. 6)"""
    ranking_warmup: Annotated[Integer, Ge(0)] = 0
    """epochs in which the weights of L1 and L2 rise from 0 to lambdas, evenly with each step"""
