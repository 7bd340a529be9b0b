"""Decide two calls of one tool under a policy of six lines: the first screen of the README."""

from agentauthz import Authorizer, Denied, PolicySet, Principal, authorize

policies = PolicySet.parse("""
permit support_refunds on payments.refund
  when subject is user and "support" in subject.roles
   and actor == agent("shop-bot")
forbid large_refund on payments.refund
  when args.amount > 500
  because "Support may refund up to 500"
""")


@authorize("payments.refund")
def refund(order_id: str, amount: int) -> str:
    return f"refunded {amount} for {order_id}"


authorizer = Authorizer(policies)
maria = Principal.user("maria", roles=["support"])

with authorizer.session(subject=maria, actor=Principal.agent("shop-bot")):
    print(refund("o-17", 120))
    try:
        refund("o-18", 9000)
    except Denied as denied:
        print(denied)
