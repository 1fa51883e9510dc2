//! What clients post, and what they are told.

use super::{
    Accept, Answer, Break, Continue, Event, Note, Post, STORE_WORD_MS, Sabotage, Standing, Step,
    Violation, Waiter, World,
};

impl World {
    pub(super) fn post(&mut self, post: usize) -> Step {
        let Post { id, amount, instance, .. } = self.plan.posts[post];
        self.count.posts += 1;
        self.note(Note::Posted { post, instance, id, amount });
        if self.sites[instance].frozen_until_ms > self.now_ms {
            self.at(self.sites[instance].frozen_until_ms, Event::Post(post));
            return Continue(());
        }
        if self.apis[instance].is_none() {
            self.leave_unanswered(post);
            return Continue(());
        }
        self.accept(instance, post)
    }

    pub(super) fn accept(&mut self, instance: usize, post: usize) -> Step {
        let now_ms = self.now_ms;
        let process = self.sites[instance].process;
        let Post { id, amount, .. } = self.plan.posts[post];
        let Some(api) = &mut self.apis[instance] else { return Continue(()) };
        if api.sync_fails {
            return self.answer(instance, post, Answer::Failing);
        }
        let accept = api.engine.accept(id, amount, api.elapsed_ms(now_ms));
        match accept {
            Accept::Writing(ticket) => {
                let ticket = Some(ticket);
                api.next_commit.push(Waiter { post, ticket });
                self.wake(instance);
                if self.sabotage == Some(Sabotage::AnswerBeforeWriting) {
                    self.answer(instance, post, Answer::Accepted)?;
                }
            }
            Accept::Wait => {
                let waiter = Waiter { post, ticket: None };
                match &mut api.writing {
                    Some(writing) => writing.waiters.push(waiter),
                    None => api.next_commit.push(waiter),
                }
            }
            Accept::Unsure => {
                api.unsure.push(post);
                self.after(STORE_WORD_MS, Event::StoreWordIsDue(instance, process, post));
            }
            Accept::Known => self.answer(instance, post, Answer::Accepted)?,
            Accept::Conflict(amount) => self.answer(instance, post, Answer::Conflict(amount))?,
            Accept::Full => self.answer(instance, post, Answer::Full)?,
            Accept::Failing(_) => self.answer(instance, post, Answer::Failing)?,
        }
        Continue(())
    }

    pub(super) fn store_spoke(&mut self, instance: usize) -> Step {
        let unsure = match &mut self.apis[instance] {
            Some(api) => std::mem::take(&mut api.unsure),
            None => Vec::new(),
        };
        for post in unsure {
            self.accept(instance, post)?;
        }
        Continue(())
    }

    pub(super) fn answer(&mut self, instance: usize, post: usize, answer: Answer) -> Step {
        if self.standings[post] == Standing::Over {
            return Continue(());
        }
        let Post { id, amount, .. } = self.plan.posts[post];
        self.note(Note::Answered { post, answer });
        let wanted = self.wanted.entry(id).or_default();
        match answer {
            Answer::Accepted => {
                wanted.accepted = true;
                wanted.amounts.insert(amount.get());
                self.count.accepted += 1;
                if let Err(violation) = self.truth.check_accepted(instance, id) {
                    return Break(violation);
                }
                self.be_over(post);
            }
            Answer::Conflict(other) => {
                let is_posted = |post: &Post| post.id == id && post.amount == other;
                if other == amount || !self.plan.posts.iter().any(is_posted) {
                    return Break(Violation::WrongConflict(id, other));
                }
                self.be_over(post);
            }
            Answer::Full => self.post_again(post),
            Answer::Failing | Answer::Unsure => {
                // The sync failed, and the write before it did not.
                if self.plan.syncs_first || answer == Answer::Unsure {
                    wanted.in_doubt = true;
                    wanted.amounts.insert(amount.get());
                }
                self.post_again(post);
            }
        }
        Continue(())
    }

    pub(super) fn leave_unanswered(&mut self, post: usize) {
        if self.standings[post] == Standing::Over {
            return;
        }
        let Post { id, amount, .. } = self.plan.posts[post];
        self.note(Note::Unanswered { post });
        let wanted = self.wanted.entry(id).or_default();
        wanted.in_doubt = true;
        wanted.amounts.insert(amount.get());
        self.post_again(post);
    }

    pub(super) fn post_again(&mut self, post: usize) {
        if self.plan.posts[post].tries == 0 {
            self.be_over(post);
            return;
        }
        let instance = usize::from(self.random.below(2) == 1);
        let again = &mut self.plan.posts[post];
        again.tries -= 1;
        again.instance = instance;
        let after_ms = self.random.between(1, 800);
        self.after(after_ms, Event::Post(post));
    }

    pub(super) fn be_over(&mut self, post: usize) {
        self.standings[post] = Standing::Over;
        self.posts_left -= 1;
    }
}
