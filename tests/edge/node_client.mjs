// Requests URL + "/whoami" with fetch, node:https and node:http2; prints the status codes as JSON.
// NODE_EXTRA_CA_CERTS is the file with the trusted roots; every host name is resolved to 127.0.0.1.
import dns from "node:dns";
import http2 from "node:http2";
import https from "node:https";

dns.lookup = (name, options, done) =>
  options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4);
const url = process.argv[2];

async function fetched() {
  const statuses = [];
  for (let i = 0; i < 3; i++) statuses.push((await fetch(`${url}/whoami`)).status);
  const posted = await fetch(`${url}/slow-read/10000000`, { method: "POST", body: "x".repeat(200000) });
  const { read } = await posted.json();
  return [...statuses, read];
}

function requested(agent, options, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(`${url}/whoami`, { agent, ...options }, (response) => {
      response.resume();
      response.on("end", () => resolve([response.statusCode, request.reusedSocket]));
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function viaHttps() {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const first = await requested(agent, {});
  const second = await requested(agent, { method: "HEAD" });
  const old = await requested(agent, { maxVersion: "TLSv1.2" });
  agent.destroy();
  return [first, second, old];
}

function viaHttp2() {
  return new Promise((resolve, reject) => {
    const session = http2.connect(url);
    session.on("error", reject);
    const statuses = [];
    for (let i = 0; i < 50; i++) {
      const stream = session.request({ ":path": "/whoami" });
      stream.on("response", (headers) => statuses.push(headers[":status"]));
      stream.on("error", reject);
      stream.resume();
      stream.on("end", () => statuses.length === 50 && session.close(() => resolve(statuses)));
    }
  });
}

console.log(JSON.stringify({ fetch: await fetched(), https: await viaHttps(), http2: await viaHttp2() }));
