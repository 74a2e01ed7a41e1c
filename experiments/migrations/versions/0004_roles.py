"""what people may do, and how they want the pages"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NEW = ("role", "session_epoch", "disabled_at", "subject", "language", "theme", "up_colour")


def upgrade() -> None:
    with op.batch_alter_table("accounts") as table:
        # Everybody who had an account could do everything.
        table.add_column(sa.Column("role", sa.String(), nullable=False, server_default="admin"))
        table.add_column(sa.Column("session_epoch", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))
        for name in _NEW[3:]:
            table.add_column(sa.Column(name, sa.String(), nullable=True))
        table.create_unique_constraint(op.f("uq_accounts_subject"), ["subject"])
    with op.batch_alter_table("accounts") as table:
        table.alter_column("role", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("accounts") as table:
        table.drop_constraint(op.f("uq_accounts_subject"), type_="unique")
        for name in _NEW:
            table.drop_column(name)
