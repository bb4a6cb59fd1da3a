"""Frozen records handed from stage to stage; they know their JSON form and nothing of disks, numpy or torch."""
