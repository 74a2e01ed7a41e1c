// The unmodified Segment client for Node: one call of every kind.
const { Analytics } = require("@segment/analytics-node");

const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const analytics = new Analytics({
  writeKey: given.key, host: given.url, path: "/v1/batch", flushAt: 4, flushInterval: 100, maxRetries: 20,
});
const errors = [];
analytics.on("error", (error) => errors.push(String(error.code) + ": " + String(error.reason?.message ?? error.reason)));

const { user, visitor } = given;
analytics.track({ userId: user, event: "purchase", properties: { revenue: 25.5, currency: "CNY", 品名: "茶" } });
analytics.identify({ userId: user, anonymousId: visitor, traits: { tier: "gold" } });
analytics.alias({ userId: user, previousId: `${visitor}-2` });
analytics.group({ userId: user, groupId: "g1", traits: { 城市: "上海" } });
analytics.page({ userId: user, name: "Home", category: "Shop" });
analytics.screen({ userId: user, name: "Cart" });
analytics.track({ userId: user, event: "Experiment Viewed", properties: { experiment_id: "seen", variation_id: "b" } });
for (let number = 0; number < given.more; number++) analytics.track({ userId: user, event: `more-${number}` });
analytics.closeAndFlush({ timeout: 60000 }).then(() => process.stdout.write(JSON.stringify(errors)));
