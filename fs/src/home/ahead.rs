//! How much to bring along with what is asked for: more while what was brought is used, less
//! while it is not.

/// After so many times the most older experience counts half.
const KNOWN_TIMES: usize = 8;

/// An amount, in whatever it counts, that grows and shrinks with its use.
#[derive(Debug)]
pub struct Ahead {
    min: usize,
    max: usize,
    worth: usize,
    now: usize,
    brought: usize,
    used: usize,
}

impl Ahead {
    /// From `min` at first to `max`; worth it while one of `worth` that were brought is used.
    #[must_use]
    pub fn new(min: usize, max: usize, worth: usize) -> Self {
        Self { min, max, worth, now: min, brought: 0, used: 0 }
    }

    /// So many were brought along.
    pub fn bring(&mut self, count: usize) {
        self.brought += count;
    }

    /// So many of them were asked for later.
    pub fn used(&mut self, count: usize) {
        self.used += count;
    }

    /// How many should be brought along next: twice as many as before while enough of what was
    /// brought is used, half as many while it is not.
    pub fn amount(&mut self) -> usize {
        if self.brought >= self.now {
            self.now = match self.used * self.worth >= self.brought {
                true => self.now * 2,
                false => self.now / 2,
            };
            self.now = self.now.clamp(self.min, self.max);
            if self.brought > KNOWN_TIMES * self.max {
                self.brought /= 2;
                self.used /= 2;
            }
        }
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_what_was_brought_is_used_and_shrinks_while_it_is_not() {
        let mut ahead = Ahead::new(2, 64, 4);
        assert_eq!(ahead.amount(), 2);
        for _ in 0..10 {
            let amount = ahead.amount();
            ahead.bring(amount);
            ahead.used(amount / 2);
        }
        assert_eq!(ahead.amount(), 64);
        for _ in 0..40 {
            let amount = ahead.amount();
            ahead.bring(amount);
        }
        assert_eq!(ahead.amount(), 2);
    }
}
