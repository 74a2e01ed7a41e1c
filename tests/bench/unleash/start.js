// Starts Unleash on one loopback port and a database: node start.js PORT DATABASE_URL TOKEN, in the folder it is installed in.
const { createRequire } = require('node:module');
const [port, url, secret] = process.argv.slice(2);
const { start } = createRequire(`${process.cwd()}/`)('unleash-server');
const database = new URL(url);

start({
  server: { port: Number(port), host: '127.0.0.1' },
  db: {
    host: database.hostname,
    port: Number(database.port),
    user: database.username,
    password: database.password,
    database: database.pathname.slice(1),
    ssl: false,
  },
  versionCheck: { enable: false },
  telemetry: false,
  logLevel: 'error',
  authentication: {
    type: 'none',
    initApiTokens: [{ environment: 'development', projects: ['*'], secret, type: 'frontend', tokenName: 'bench' }],
  },
}).catch((error) => {
  console.error(error);
  process.exit(1);
});
