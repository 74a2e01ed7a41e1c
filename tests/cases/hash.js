// Prints hash.json: `node hash.js > hash.json`. Independent of the Python code: charCodeAt and Math.imul, as in a browser.
const fnv1a32 = (text) => {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
};
const bucket = (seed, id) => fnv1a32(String(fnv1a32(seed + id))) % 10000;

const growthbook = [["seed", "a"], ["seed", "b"], ["foo", "ab"], ["90850943850283058242805", "123"]];
const own = [
  ["", "a"], ["seed", ""], ["seed", "user-1234567"], ["email:1", "user-1234567"], ["seed", "a".repeat(300)],
  ["seed", "用户123"], ["用户分层:1", "用户123"], ["seed", "café"], ["seed", "cafe\u0301"], ["seed", "ÿ"], ["seed", "Ā"],
  ["seed", "😀"], ["seed", "user-😀-1"], ["😀", "😀"], ["seed", "👨‍👩‍👧‍👦"], ["seed", "𠮷野家"], ["seed", "Ж用😀z"],
  ["seed", "\uffff"], ["seed", "\ud83d"], ["seed", "\ude00\ud83d"], ["seed", "a\u0000b"], ["seed", "a\u0000"], ["seed", "\u0000"],
];
const lines = (pairs) => pairs.map(([seed, id]) => "    " + JSON.stringify({ seed, id, bucket: bucket(seed, id) }));
// Hashes below 100,000 have few digits: their buckets are found by search, to test the second pass.
const few = [];
for (let i = 0; few.length < 3; i++) if (fnv1a32("few" + i) < 100000) few.push(["few", String(i)]);

console.log(`{
  "about": "bucket = fnv1a32(str(fnv1a32(seed + id))) % 10000 over UTF-16 code units. 'growthbook' are facts published with the GrowthBook SDKs (hash version 2, there as bucket / 10000); the others were computed by hash.js.",
  "growthbook": [
${lines(growthbook).join(",\n")}
  ],
  "own": [
${lines(own).join(",\n")}
  ],
  "few_digits": [
${lines(few).join(",\n")}
  ]
}`);
