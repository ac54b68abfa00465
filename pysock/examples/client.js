"use strict";
// A client in JavaScript with what Node.js itself has, made from the page "wire" of pysock's documentation alone.
//   node client.js upper.sock hello [FILE]    the bytes of FILE are the auth key
const crypto = require("crypto"), net = require("net");

const CIR = 1, SRM = 2, BYE = 4, PROOF = 8; // kinds of frames
const ACCEPTED = 0x81, REFUSED = 0x82, REPLY = 0x83, ERROR = 0x84, PUSH = 0x85, GOAWAY = 0x87, CHALLENGE = 0x88;
const NAME = 2, NONCE = 3, MAC = 4, SERVICE = 7; // tags of fields

function frame(kind, payload = "", code = 0, id = 0) {
  const head = Buffer.alloc(12), body = Buffer.from(payload); // the flags stay 0
  head.writeUInt32BE(body.length), (head[4] = kind), head.writeUInt16BE(code, 6), head.writeUInt32BE(id, 8);
  return Buffer.concat([head, body]);
}

const field = (tag, value) => Buffer.concat([Buffer.from([tag, value.length >> 8, value.length & 255]), value]);

function* fields(data) {
  for (let at = 0, end; at < data.length; at = end) {
    if ((end = at + 3 + data.readUInt16BE(at + 1)) > data.length) throw new Error("a field is cut short");
    yield [data[at], data.subarray(at + 3, end)];
  }
}

function mac(key, ...parts) {
  return parts.reduce((hmac, part) => hmac.update(part), crypto.createHmac("sha256", key)).digest();
}

// where: what net.connect() takes; key: a Buffer. The promise is kept when the server has let this client in.
function connect(where, { name = "", key = null, onPush = () => {} } = {}) {
  const socket = net.connect(where), nonce = crypto.randomBytes(32), services = new Map([["", 0]]), waiting = new Map();
  let admit, lost, lastId = 0, ended = null, proven = !key, data = Buffer.alloc(0);

  function end(error) { // promises that are settled take no notice
    ended ??= error;
    [{ reject: lost }, ...waiting.values()].forEach((one) => one.reject(ended));
    socket.destroy();
  }

  function request(payload, service = "") {
    return new Promise((resolve, reject) => {
      if (ended || !services.has(service)) throw ended ?? new Error(`the server has no service '${service}'`);
      lastId = (lastId % 0xffffffff) + 1; // never 0
      waiting.set(lastId, { resolve, reject });
      socket.write(frame(SRM, payload, services.get(service), lastId));
    });
  }

  function prove(said) {
    if (!crypto.timingSafeEqual(said.get(MAC), mac(key, "pysock1 server", nonce, said.get(NONCE))))
      throw new Error("the server has another auth key");
    socket.write(frame(PROOF, field(MAC, mac(key, "pysock1 client", nonce, said.get(NONCE), name))));
    return true;
  }

  function welcome(said) {
    if (!proven) throw new Error("the server has not proved that it has the auth key");
    for (const [tag, value] of said)
      if (tag === SERVICE) services.set(value.toString("utf8", 3), value.readUInt16BE());
    admit({ request, services, close: () => socket.end(frame(BYE)) });
  }

  function take(kind, code, id, payload) {
    const text = () => Object.assign(new Error(payload.toString()), { code }), asked = waiting.get(id);
    if (kind === ACCEPTED) welcome(fields(payload));
    else if (kind === CHALLENGE && !proven) proven = prove(new Map(fields(payload)));
    else if (kind === PUSH) onPush(payload);
    else if (kind === GOAWAY || (kind === ERROR && !asked)) ended = text();
    else if (kind === REFUSED) throw text();
    else if (waiting.delete(id)) kind === REPLY ? asked.resolve(payload) : asked.reject(text());
  }

  function arrived(more) { // what is no whole frame yet waits for the rest
    data = Buffer.concat([data, more]);
    for (let size; data.length >= 12 && data.length >= (size = 12 + data.readUInt32BE()); data = data.subarray(size))
      take(data[4], data.readUInt16BE(6), data.readUInt32BE(8), data.subarray(12, size));
  }

  socket.on("data", (more) => { try { arrived(more); } catch (error) { end(error); } });
  socket.on("error", end).on("close", () => end(new Error("the server closed the connection")));
  const said = [name && field(NAME, Buffer.from(name)), key && field(NONCE, nonce)].filter(Boolean);
  socket.write(frame(CIR, Buffer.concat([Buffer.from("PSK1"), ...said]), 1)); // the code is the protocol's version
  return new Promise((resolve, reject) => { [admit, lost] = [resolve, reject]; });
}

module.exports = { connect };

if (require.main === module) {
  const [path, payload, file] = process.argv.slice(2);
  connect({ path }, { name: "node", key: file && require("fs").readFileSync(file) })
    .then(async (client) => { process.stdout.write(await client.request(payload)); client.close(); })
    .catch((error) => { console.error(error.message); process.exitCode = 1; });
}
