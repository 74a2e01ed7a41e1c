"""who is the same person, and the origins of keys"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("other_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("other_id", name=op.f("pk_identities")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("origins", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("origins")
    op.drop_table("identities")
