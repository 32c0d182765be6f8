"""second judgements and reviews

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=32), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("refused", sa.String(length=512), nullable=True),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("rubric_version", sa.String(length=64), nullable=False),
        sa.Column("choice_probability", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "turn", name=op.f("pk_reviews")),
        comment="what the judge says of a random slice of turns, or why it says nothing; its words are not kept",
    )
    op.create_table(
        "second_judgements",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("classifier_version", sa.String(length=64), nullable=False),
        sa.Column("q_aligned", sa.SmallInteger(), nullable=False),
        sa.Column("q_over_refusal", sa.SmallInteger(), nullable=False),
        sa.Column("q_harmful_compliance", sa.SmallInteger(), nullable=False),
        sa.Column("q_deception", sa.SmallInteger(), nullable=False),
        sa.Column("q_goal_deviation", sa.SmallInteger(), nullable=False),
        sa.Column("doubt", sa.SmallInteger(), nullable=False),
        sa.Column("choice_probability", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "turn", name=op.f("pk_second_judgements")),
        comment="what the accurate tier says of the turns it took, and how likely it was to take each",
    )


def downgrade() -> None:
    op.drop_table("second_judgements")
    op.drop_table("reviews")
