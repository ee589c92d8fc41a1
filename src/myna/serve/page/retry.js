// A request that a busy server sends away is sent again.

const MOST_TRIES = 5;
const WAIT_SECONDS = 1; // where the server does not say for how long

/**
 * What `work` gives; after a 429 it is done again.
 * @param {() => Promise} work
 * @param {AbortSignal} signal ends a wait, too
 * @param {(message: string) => void} onWait told before each wait
 */
export async function retried(work, signal, onWait) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (error.status !== 429 || tries === MOST_TRIES) throw error;
      const seconds = error.retryAfter ?? WAIT_SECONDS;
      onWait(`The server is busy. Trying again in ${seconds} s (${tries} of ${MOST_TRIES - 1}).`);
      await pause(seconds, signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
